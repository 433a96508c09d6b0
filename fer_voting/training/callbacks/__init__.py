from fer_voting.training.callbacks.checkpoints import Checkpoints
from fer_voting.training.callbacks.forward_memory import ForwardMemory
from fer_voting.training.callbacks.guard import Guard
from fer_voting.training.callbacks.history import History
from fer_voting.training.callbacks.last_bias import LastBias
from fer_voting.training.callbacks.progress import RunProgress
from fer_voting.training.callbacks.throughput import Throughput

__all__ = ["Checkpoints", "ForwardMemory", "Guard", "History", "LastBias", "RunProgress", "Throughput"]
