from fer_voting.callbacks.forward_memory import ForwardMemory
from fer_voting.callbacks.history import History
from fer_voting.callbacks.progress import RunProgress
from fer_voting.callbacks.throughput import Throughput

__all__ = ["ForwardMemory", "History", "RunProgress", "Throughput"]
