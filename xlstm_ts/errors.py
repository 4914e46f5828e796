"""The few errors of the package, all under one base.

Each is also the builtin that generic code expects, so ``except ValueError`` keeps working. Messages name
the object and method, what was wrong, what was expected, and what to do.
"""


class XLSTMError(Exception):
    """Base of all errors raised on purpose by xlstm_ts."""


class DataError(XLSTMError, ValueError):
    """A series, frame or file content cannot be used as it is."""


class DataTypeError(DataError, TypeError):
    """A column is not made of real numbers."""


class ParameterError(XLSTMError, ValueError):
    """A parameter has an impossible value, or parameters contradict each other."""


class ShapeError(XLSTMError, ValueError):
    """A tensor has the wrong shape, dtype or device."""


class BackendError(XLSTMError, RuntimeError):
    """A backend or device was asked for by name and cannot run here."""


class TrainingError(XLSTMError, RuntimeError):
    """Training stopped because the loss was not finite."""


class DatasetError(XLSTMError, RuntimeError):
    """A data set is unknown, cannot be fetched, or is not the file that its hash promises."""


class CheckpointError(XLSTMError, OSError):
    """A training run cannot be written, or what was written is not a whole run of the same data and settings."""


class ModelFileError(XLSTMError, OSError):
    """A model cannot be written to a file, or a file is not a whole model that this release reads."""
