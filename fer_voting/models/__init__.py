from fer_voting.models.resnet import SPLITS, VotingResNet18

__all__ = ["SPLITS", "VotingResNet18"]
