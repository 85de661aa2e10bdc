"""The policy: a vision-language model with a frozen tower, its processor, and a LoRA adapter, the only part that is
trained. The reference policy of GRPO is the same model with the adapter switched off: no second copy in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch.nn import Parameter
from transformers import PreTrainedModel

from favor_lab.moved import find_name
from favor_lab.vlm import hub
from favor_lab.vlm.processor import ImageTextProcessor

if TYPE_CHECKING:
    from favor_lab import Answer
    from favor_lab.activities.images import Picture


@dataclass(eq=False, repr=False)
class Policy:
    """A model, its processor, and the token ids that sampling and scoring need. Made by `load_policy`."""

    model: Any
    processor: ImageTextProcessor
    name: str
    # reads the model again as it was before training, on the CPU: the reference of a policy without an adapter
    initial: Callable[[], torch.nn.Module] | None = None
    revision: str | None = None  # the commit on the Hub that the weights come from; None for a local directory
    folder: Path | None = None  # where the checkpoint's files are

    @property
    def base(self) -> PreTrainedModel:
        """The model of transformers, of one of `families.FAMILIES`; LoRA layers, if any, are in place inside it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @cached_property
    def base_digests(self) -> dict[str, str]:
        """What the base is, by content: its commit on the Hub, or the digest of each of its files. Empty if unknown."""
        if self.revision is not None or self.folder is None:
            return {} if self.revision is None else {"commit": self.revision}
        try:
            return hub.digests(self.folder)
        except (OSError, ValueError):
            return {}

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def tower(self) -> torch.nn.Module:
        """The vision tower: frozen, and needed only to encode images."""
        return self.base.model.visual

    @property
    def device(self) -> torch.device:
        """Where prompts and completions are computed. `base.device` would be that of the tower, its first module."""
        return self.base.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.get_input_embeddings().weight.dtype

    @property
    def context_length(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        return self.base.config.text_config.max_position_embeddings

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id

    @cached_property
    def end_token_ids(self) -> list[int]:
        """Every id that ends a completion, from the checkpoint's generation_config and its tokenizer."""
        ids = self.base.generation_config.eos_token_id
        ids = [*(ids if isinstance(ids, list | tuple) else [ids]), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(token for token in ids if token is not None))

    @cached_property
    def forbidden_token_ids(self) -> list[int]:
        """Ids that no completion may contain: image, video and vision tokens (the model would look for an image there),
        padding unless it also ends a completion, and rows of the embedding that belong to no token."""
        config, vocabulary = self.base.config, self.tokenizer.get_vocab()
        ids = {config.image_token_id, config.video_token_id, self.pad_token_id}
        ids |= {config.vision_start_token_id, config.vision_end_token_id, vocabulary.get("<|vision_pad|>")}
        ids |= set(range(len(self.tokenizer), config.text_config.vocab_size))
        return sorted(ids - {None, *self.end_token_ids})

    @cached_property
    def forbidden(self) -> torch.Tensor:
        """`forbidden_token_ids` as a boolean mask (V,) on the policy's device."""
        mask = torch.zeros(self.base.config.text_config.vocab_size, dtype=torch.bool)
        mask[self.forbidden_token_ids] = True
        return mask.to(self.device)

    def answer(
        self, images: Picture | Sequence[Picture], labels: Sequence[str] | None, style: str = "think", **options: Any
    ) -> list[Answer]:
        """What the policy says about images without a label: short for `favor_lab.answer(policy, images, ...)`."""
        from favor_lab import answer

        return answer(self, images, labels, style, **options)

    def trainable_parameters(self) -> list[tuple[str, Parameter]]:
        """(name, parameter) of everything that the optimiser may change."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def report(self) -> str:
        """A small table: the number of parameters of each part, and how many of them are trainable."""
        counts = {"vision tower": [0, 0], "language model": [0, 0], "LoRA adapter": [0, 0]}
        for name, p in self.model.named_parameters():
            part = "LoRA adapter" if "lora_" in name else "vision tower" if "visual" in name else "language model"
            size = p.numel() * (2 if type(p).__name__ == "Params4bit" else 1)  # two 4-bit weights per byte
            counts[part][0] += size
            counts[part][1] += size * p.requires_grad
        lines = [f"{self.name} on {self.device}, {str(self.dtype).removeprefix('torch.')}"]
        lines += [f"{'part':<16}{'parameters':>15}{'trainable':>15}"]
        lines += [f"{part:<16}{size:>15,}{trainable:>15,}" for part, (size, trainable) in counts.items() if size]
        return "\n".join(lines)

    def move_tower(self, device: str | torch.device) -> None:
        """Move the vision tower to a device of its own: on the CPU it frees its memory (2B: 1.3 GB) for training.
        `encode_prompts` moves it to the policy's device while it encodes, and back."""
        self.tower.to(device)

    @contextmanager
    def tower_on(self, device: str | torch.device) -> Iterator[None]:
        """Inside the block the vision tower is on `device`; afterwards it is back where it was, or on the CPU, with a
        warning, if it no longer fits there."""
        home = next(self.tower.parameters()).device
        try:
            self.move_tower(device)
            yield
        finally:
            try:
                self.move_tower(home)
            except torch.OutOfMemoryError:
                self.move_tower("cpu")
                warnings.warn(f"no room on {home} for the vision tower: it stays on the CPU", stacklevel=3)

    @contextmanager
    def reference(self) -> Iterator[Policy]:
        """Inside the block the policy is the reference policy, the model before training: its adapter is off or,
        without an adapter, the trainable weights are replaced by the checkpoint's (read once, kept on the CPU).
        ValueError if there is neither an adapter nor a checkpoint."""
        if isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield self
            return
        with self.weights(self.initial_weights):
            yield self

    @contextmanager
    def weights(self, values: Mapping[str, torch.Tensor]) -> Iterator[Policy]:
        """Inside the block these values stand in for the trainable parameters of the same names, not copied where they
        are on the parameters' device. Empty: the policy as it is. KeyError for a name that does not exist."""
        trainable = dict(self.trainable_parameters())
        own = {name: trainable[name].data for name in values}
        try:
            for name, value in values.items():
                trainable[name].data = value.to(trainable[name].device)
            yield self
        finally:
            for name, value in own.items():
                trainable[name].data = value

    @cached_property
    def initial_weights(self) -> dict[str, torch.Tensor]:
        """The trainable weights as they were before training, by name, on the CPU."""
        if self.initial is None:
            raise ValueError(
                "there is neither an adapter to switch off nor a checkpoint to read the weights from again"
            )
        weights = dict(self.initial().named_parameters())
        return {name: weights[name].detach() for name, _ in self.trainable_parameters()}

    def save(self, directory: str | Path) -> Path:
        """Write the adapter as safetensors, for `load_policy(name, adapter=directory)`; without an adapter the complete
        checkpoint in the Hub layout, for `load_policy(directory)`."""
        directory = Path(directory)
        if isinstance(self.model, PeftModel):
            had_card = (directory / "README.md").exists()
            self.model.save_pretrained(directory, save_embedding_layers=False)  # "auto" would send requests to the Hub
            if not had_card:
                (directory / "README.md").unlink(missing_ok=True)  # peft's template names a local path
        else:
            self.model.save_pretrained(directory)
            self.processor.save_image_processor(directory)
            self.tokenizer.save_pretrained(directory)
        return directory


__getattr__ = partial(find_name, "vlm.policy", ["vlm.loading"])  # `load_policy` was here in 0.1.0
