"""What training alone can tell."""

from nas.study.objectives.base import ACCURACY, Candidate, Objective, register_objective


@register_objective(ACCURACY)
class Accuracy(Objective):
    """Accuracy on the validation split after the last epoch, in [0, 1]."""

    metric = "val_accuracy"
    title = "validation accuracy (%)"
    is_maximised = True
    is_logarithmic = False

    def value(self, candidate: Candidate) -> float | None:
        return candidate.val_accuracy

    def text(self, value: float) -> str:
        return f"{100 * value:.2f} %"
