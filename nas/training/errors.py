"""What ends a training; the messages say why. Imports nothing, so that a driver knows them without torch or timm."""


class TrainingError(RuntimeError):
    """Training that cannot go on."""


class ProcessLostError(RuntimeError):
    """Another of the processes that train a model together has ended, through no fault of the model."""


class MeasuringError(TrainingError):
    """An objective that this device cannot measure."""
