"""What a training step costs: FLOPs and bytes by formula, what fits on a GPU, and what this machine really takes.

In reading order: `shapes` `flops` `memory` `cards` `fits` are formulas; `machine` `profiling` `doctor` measure and
check.
"""
