"""The bare memory cells of xLSTM: tensors in, tensors out."""

from xlstm_ts.kernels.cells import mlstm, slstm
from xlstm_ts.kernels.dispatch import BACKENDS, resolve
from xlstm_ts.kernels.states import MLSTMState, SLSTMState

__all__ = ["BACKENDS", "MLSTMState", "SLSTMState", "mlstm", "resolve", "slstm"]
