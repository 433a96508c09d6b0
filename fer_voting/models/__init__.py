from fer_voting.models.resnet import VotingResNet18
from fer_voting.models.voting import SPLITS, VotingNetwork

__all__ = ["SPLITS", "VotingNetwork", "VotingResNet18"]
