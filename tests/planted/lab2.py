"""Wrong answers to lab 2, rewards and advantages."""

from planted import Wrong

PLANTED: dict[str, list[Wrong]] = {
    "group-advantages": [
        Wrong(
            "std with n, not n - 1",
            """
def advantages(rewards, eps=1e-4):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True, unbiased=False) + eps)
""",
            "n - 1",
        ),
        Wrong(
            "mean over the batch",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean()) / (rewards.std(dim=1, keepdim=True) + eps)
""",
            "each group",
        ),
        Wrong(
            "std over the batch",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std() + eps)
""",
            "each group",
        ),
        Wrong(
            "no eps",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / rewards.std(dim=1, keepdim=True)
""",
            "eps",
        ),
        Wrong(
            "eps inside the root",
            """
def advantages(rewards, eps=1e-4):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.var(dim=1, keepdim=True) + eps).sqrt()
""",
            "eps",
        ),
        Wrong(
            "sign turned round",
            """
def advantages(rewards, eps=1e-4):
    return (rewards.mean(dim=1, keepdim=True) - rewards) / (rewards.std(dim=1, keepdim=True) + eps)
""",
            "better than",
        ),
    ],
}
