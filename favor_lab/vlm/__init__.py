"""Who looks: prompts, processing, the policy and its shared prefix."""
