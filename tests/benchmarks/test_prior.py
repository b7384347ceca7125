"""What the comparison of earlier searches starts from."""

from benchmarks.prior import earlier_draw, taus
from benchmarks.virtual_time import study_and_curves


def test_longer_earlier_trainings_agree_more_and_the_whole_ones_wholly() -> None:
    found = taus()
    assert found == sorted(found)
    assert found[-1] == 1.0


def test_a_draw_is_of_other_architectures_for_each_seed_with_their_accuracies_then() -> None:
    study, curves = study_and_curves()
    draws = [earlier_draw(study.model_copy(update={"seed": seed}), curves, epochs=4) for seed in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    space = study.make_space()
    for model in draws[0].models:
        curve = curves.curve(space.decode(model.genes)).val_accuracies
        assert model.val_accuracy == curve[3]
        assert len(curve) == study.recipe.epochs
