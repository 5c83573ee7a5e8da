"""What travels to the Hub beside the weights: flat files, torch, transformers, numpy and PIL only."""
