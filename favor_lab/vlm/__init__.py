"""The policy that looks at images: prompts, processing, the model and its shared prefix."""
