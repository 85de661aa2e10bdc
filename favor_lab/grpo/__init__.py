"""GRPO in four steps, one file each: sampling, rewards, advantages, losses. `training` is the loop around them."""
