"""No tensor is on the wrong device: what runs on a pretended GPU (`pretended_cuda`) has the records of the CPU."""

import warnings
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

import pretended_cuda
from favor_lab import draw_scene
from favor_lab.activities.fewshot import Example, FewShot
from favor_lab.budget import profiling
from favor_lab.cli import main, training
from favor_lab.grpo.losses import aggregate, grpo_loss
from favor_lab.grpo.rewards import accuracy_reward
from favor_lab.grpo.sampling import encode_completions, join, sample_groups
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.settings import HOWS, GRPOSettings, TrainSettings
from favor_lab.grpo.training import train
from favor_lab.recipes import find_recipe
from favor_lab.runs.variants import VARIANTS
from favor_lab.show import report
from favor_lab.show.explanations import plot_explanation
from favor_lab.study.answering import answer, answer_probabilities, label_probabilities
from favor_lab.study.evaluation import Evaluation, evaluate
from favor_lab.study.explanations import explain
from favor_lab.study.groups import sample_judged_groups
from favor_lab.study.run_folder import RunFolder
from favor_lab.study.sft import sft
from favor_lab.study.tokens import token_losses, token_table, token_weights
from favor_lab.vlm.fast.decoding import StaticDecoder
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from favor_lab.vlm.question import Question
from tiny import LABELS

SHORT = GRPOSettings(steps=2, prompts_per_step=2, group_size=3, max_new_tokens=8, learning_rate=1e-2)

# --------------------------------------------------------------------------------------------- the pretended device


def test_tensors_on_two_devices_do_not_meet(cuda):
    here, there = torch.arange(6.0), torch.arange(6.0, device="cuda")
    assert there.device == torch.device("cuda:0") and there.is_cuda and not there.is_cpu and here.is_cpu
    for meet in (
        lambda: here + there,
        lambda: there.add_(here),
        lambda: here.sum().add_(there.sum()),
        lambda: torch.cat([there, here]),
        lambda: torch.stack([there.sum(), here.sum()]),
        lambda: there.masked_fill(here > 2, 0.0),
        lambda: here[there.long()],
        lambda: there.__setitem__([0, 1], here[:2]),
        lambda: torch.nn.functional.linear(there, here),
        lambda: torch.nn.Linear(6, 2).to("cuda")(here),
    ):
        with pytest.raises(RuntimeError, match="on the same device"):
            meet()
    assert (there + here.sum()).is_cuda, "a CPU scalar may"
    assert torch.equal(there[here.long()].cpu(), here), "and a CPU index"


def test_where_a_tensor_is_stays_with_its_memory(cuda):
    linear = torch.nn.Linear(3, 2).to("cuda")
    assert linear.weight.is_cuda and linear.weight.T[0].data.detach().device.type == "cuda"
    linear(torch.ones(1, 3, device=linear.weight.device)).sum().backward()
    assert linear.weight.grad.is_cuda and torch.zeros_like(linear.bias).is_cuda
    assert linear.weight.new_zeros(2).is_cuda and not torch.zeros(2).is_cuda
    copy = linear.weight.cpu()
    assert not copy.is_cuda and copy.data_ptr() != linear.weight.data_ptr()
    assert linear.cpu().weight.device.type == "cpu"
    before = torch.cuda.memory_allocated()
    large = torch.zeros(1000, device="cuda")
    assert torch.cuda.memory_allocated() == before + large.nbytes == torch.cuda.max_memory_allocated()
    del large
    assert torch.cuda.memory_allocated() == before


def test_numpy_refuses_a_tensor_on_the_gpu(cuda):
    there = torch.arange(3, device="cuda")
    for refused in (there.numpy, lambda: np.asarray(there), lambda: np.stack([there, there])):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            refused()
    assert np.asarray(there.cpu()).tolist() == [0, 1, 2]


def test_a_generator_belongs_to_its_device(cuda):
    drawn = torch.rand(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    assert drawn.is_cuda and torch.equal(drawn.cpu(), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_what_makes_the_host_wait_is_counted(cuda):
    there = torch.arange(6, device="cuda")
    before = len(cuda.syncs)
    for waits in (
        lambda: there.sum().item(),
        lambda: there.tolist(),
        lambda: bool(there.any()),
        lambda: int(there.max()),
        lambda: there.nonzero(),
        lambda: there[there > 2],
        lambda: there[[0, 1]],
        lambda: there[there[1]],
        lambda: there.unique(),
        lambda: there.cpu(),
        lambda: torch.as_tensor(there, device="cpu"),
        lambda: torch.arange(3).to("cuda"),
        lambda: torch.tensor([1, 2], device="cuda"),
        lambda: there.copy_(torch.arange(6)),
        lambda: torch.equal(there, there),
        lambda: there.repeat_interleave(there),
        torch.cuda.synchronize,
    ):
        waits()
        assert len(cuda.syncs) == before + 1, waits
        before += 1
    there[there > 2] = 0
    there[0], there[there.clone()] = 5, 1
    torch.where(there > 2, there, 0).repeat_interleave(2).float().cumsum(0).sort()
    torch.arange(3).pin_memory().to("cuda", non_blocking=True)
    torch.arange(6).sum().item()
    assert len(cuda.syncs) == before


def test_a_graph_is_a_tape(cuda):
    """What a capture reads is read again in each replay, from where it was; a capture itself computes nothing."""
    static, other = torch.ones(2, device="cuda"), torch.zeros(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = (static * 2)[1:]
        other.add_(static)
    assert result.isnan().all() and other.tolist() == [0.0, 0.0]
    graph.replay()
    assert result.tolist() == [2.0] and other.tolist() == [1.0, 1.0]
    static.fill_(5.0)
    graph.replay()
    assert result.tolist() == [10.0] and other.tolist() == [6.0, 6.0]
    static = torch.zeros(2, device="cuda")  # another storage, which the graph does not know
    graph.replay()
    assert result.tolist() == [10.0]
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), torch.cuda.graph(graph):
        static.sum().item()


def test_a_process_gets_no_more_memory_than_it_may_have(cuda):
    with pytest.raises(ValueError, match="with a specified index"):
        torch.cuda.set_per_process_memory_fraction(0.5, "cuda")
    torch.cuda.set_per_process_memory_fraction(1e6 / pretended_cuda.TOTAL, "cuda:0")
    kept = torch.zeros(200_000, device="cuda")
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.zeros_like(kept)
    del kept
    assert torch.zeros(200_000, device="cuda").is_cuda


def test_what_a_graph_holds_ends_with_it(cuda):
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.memory_allocated()
    with torch.cuda.graph(graph):
        result = torch.zeros(1000, device="cuda") + 1
        result.add_(1)
    graph.replay()
    assert torch.cuda.memory_allocated() > before
    del graph, result
    assert torch.cuda.memory_allocated() == before and [graph.replays for graph in cuda.graphs] == [1]


def test_a_backward_function_in_python_works_on_the_gpu(cuda):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return 2 * x

        @staticmethod
        def backward(context, gradient):
            return gradient * torch.tensor([2.0, 2.0, 2.0], device="cuda")

    x = torch.ones(3, device="cuda", requires_grad=True)
    (3 * Double.apply(x)).sum().backward()
    assert x.grad.is_cuda and x.grad.tolist() == [6.0, 6.0, 6.0]


def test_narrow_products_are_summed_in_a_wider_type(cuda):
    narrow = torch.full((1, 300), 1.01, device="cuda", dtype=torch.bfloat16)
    wide = torch.mm(narrow, narrow.T, out_dtype=torch.float32)
    assert wide.is_cuda and wide.item() == (narrow.float() @ narrow.float().T).item()


# --------------------------------------------------------------------------------------------------------- training


def even_ids(completion_ids, **columns):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def timeless(records):
    return [{name: value for name, value in record.to_dict().items() if name != "seconds"} for record in records]


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=tiny_examples[:2], labels=LABELS)


@pytest.fixture
def as_on_the_cpu(cuda, tiny_checkpoint):
    """Call it with a function of a policy: its result on the GPU, which must be that on the CPU."""

    def compare(work, **options):
        cpu, gpu = (
            work(load_policy(tiny_checkpoint, lora_rank=4, device=device, check=False, **options))
            for device in ("cpu", "cuda")
        )
        assert gpu == cpu
        assert cuda.places, "nothing was on the GPU"
        return gpu

    return compare


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch": 2}, {"gradient_checkpointing": True}, {"offload_tower": True}, {"updates_per_rollout": 2},
     {"decoding": "plain", "scoring": "plain"}, {"level": "sequence"}, {"beta": 0.0}, {"skip_flat_groups": True}]
    + [{"how": how} for how in HOWS[1:]],
    ids=str,
)  # fmt: skip
def test_training_is_that_of_the_cpu(as_on_the_cpu, shots, changes):
    settings = replace(SHORT, **changes)
    records = as_on_the_cpu(lambda policy: timeless(train(policy, shots, settings, rewards=[even_ids])))
    assert records[0]["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"adapter": None}], ids=["bfloat16", "all-weights"])
def test_other_weights_train_too(cuda, tiny_checkpoint, shots, options):
    records = []
    for device in ("cpu", "cuda"):
        rank = 0 if "adapter" in options else 4
        policy = load_policy(tiny_checkpoint, lora_rank=rank, device=device, check=False, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about float32 copies
            records.append(timeless(train(policy, shots, SHORT, rewards=[even_ids])))
    assert records[0] == records[1]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_recipe_is_that_of_the_cpu(as_on_the_cpu, variant):
    scenes = [draw_scene("cartoon", "train", index) for index in range(2)]
    examples = [Example(scene.image, str(scene.label), scene.source) for scene in scenes]
    shots, chosen = FewShot(examples, [], [], sorted({e.label for e in examples})), VARIANTS[variant]
    settings = replace(chosen.applied_to(SHORT), group_size=2, steps=2)
    as_on_the_cpu(lambda policy: timeless(chosen.train(policy, shots, settings)))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 2}, {"coefficients": {"exact": False}}], ids=str)
@pytest.mark.parametrize("name", ["papo", "vppo", "noisy-rollout", "dupl", "verl", "amft", "rloo"])
def test_each_recipe_of_changed_images_is_that_of_the_cpu(as_on_the_cpu, shots, name, changes):
    recipe = find_recipe(name)
    if changes.get("coefficients", {}).keys() - recipe.options().keys():
        pytest.skip("it has no estimate in place of something exact")
    recipe = replace(recipe, steps={**recipe.steps, "rewards": [even_ids]})
    as_on_the_cpu(lambda policy: timeless(recipe.train(policy, shots, replace(SHORT, **changes))))


@pytest.mark.slow
def test_steps_of_ones_own(as_on_the_cpu, shots):
    """Injected and replayed rows, a question for each step, distributions, other weights, a state that is kept."""

    def question(examples, context):
        return Question(context.shots.labels, "answer" if context.step % 2 else "think")

    def select(rollout, context):
        context.state["seen"] = context.state.get("seen", torch.zeros(2)) + 1
        gold = [f"<answer>{example.label}</answer>" for example in context.examples]
        rows = encode_completions(context.policy, gold, range(len(gold)), group_size=rollout.group_size)
        joined = join(rollout, context.compute_rewards(rows))
        return joined.rows(joined.lengths > 1)

    def loss(logps, old_logps, ref_logps, advantages, mask, distributions, context, rollout, **settings):
        other = context.logps(rollout, weights={name: 0 * w for name, w in context.policy.trainable_parameters()})
        value, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)
        entropy = aggregate(-distributions.max(dim=-1).values, mask, "grpo")
        return value + 0.01 * entropy + 0.0 * other.sum(), parts | {"peak": entropy.item()}

    def after_step(context):
        context.state["norm"] = torch.stack([w.detach().norm() for _, w in context.policy.trainable_parameters()])

    own = {"question": question, "select": select, "loss": loss, "after_step": after_step}
    as_on_the_cpu(lambda policy: timeless(train(policy, shots, SHORT, rewards=[even_ids, accuracy_reward], **own)))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 1, "gradient_checkpointing": True}], ids=str)
def test_sft(as_on_the_cpu, shots, changes):
    settings = TrainSettings(steps=2, prompts_per_step=2, learning_rate=1e-2, **changes)
    as_on_the_cpu(lambda policy: timeless(sft(policy, shots, settings)))
    as_on_the_cpu(lambda policy: timeless(sft(policy, shots, settings, reasoning=lambda example: "two wheels")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_a_checkpoint_goes_on_where_it_was_and_on_the_other_device(cuda, tiny_checkpoint, shots, tmp_path, kind):
    """Saved in the middle of a rollout with updates left, with a tensor in the memory of a step of one's own."""
    settings = replace(SHORT, steps=3, updates_per_rollout=2)

    def run(policy, state):
        if kind == "sft":
            return sft(policy, shots, settings, resume=state)
        return train(policy, shots, settings, rewards=[even_ids], after_step=remember, resume=state)

    def remember(context):
        kept = context.state.get("kept", torch.zeros(2, device=context.policy.device))
        context.state["kept"] = kept + next(w for _, w in context.policy.trainable_parameters()).detach().norm()

    def load(device):
        return load_policy(tiny_checkpoint, lora_rank=4, device=device, check=False)

    policy = load("cpu")
    whole = timeless(run(policy, TrainingState.start(policy, settings)))
    for first, second in (("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")):
        policy = load(first)
        state = TrainingState.start(policy, settings)
        begun = timeless(islice(run(policy, state), 1))
        folder = tmp_path / f"{first}-{second}"
        save_checkpoint(folder, state)
        policy = load(second)
        assert begun + timeless(run(policy, load_checkpoint(folder, policy))) == whole
        assert policy.device.type == second


@pytest.mark.slow
def test_what_is_asked_of_a_policy(as_on_the_cpu, tiny_examples):
    """Evaluation, answers, explanations, occlusion, groups, the table of tokens."""
    response = "<think>two wheels.</think><answer>riding a bike</answer>"
    example = tiny_examples[1]

    def ask(policy):
        seen = [replace(evaluate(policy, tiny_examples, LABELS, max_new_tokens=6, batch_size=3), seconds=0.0)]
        seen += [answer(policy, tiny_examples, labels, max_new_tokens=6) for labels in (LABELS, None)]
        explained = explain(policy, example, LABELS, response=response, max_new_tokens=6)
        seen += [explained.summary(), explained.logps, explained.blank_logps]
        seen += [{part: np.asarray(drops).tolist() for part, drops in explained.occlusion.drops.items()}]
        plot_explanation(explained)
        seen += [explain(policy, example, None, max_new_tokens=6).text]
        seen += [sample_judged_groups(policy, tiny_examples[:2], LABELS, SHORT)]
        prompts = encode_prompts(policy, tiny_examples[:2], LABELS)
        seen += [label_probabilities(policy, prompts, [response, ""], LABELS)]
        seen += [answer_probabilities(policy, prompts, encode_completions(policy, [response, "two wheels"], [0, 1]))]
        rollout = sample_groups(policy, prompts, 2, 6, seed=0, top_k=20, top_p=0.9)
        advantages = torch.tensor([1.0, -1.0, 0.5, -0.5], device=policy.device)
        parts = token_losses(rollout.logps, rollout.logps, rollout.logps, advantages, rollout.mask)
        return [*seen, token_table(policy.tokenizer, rollout, 0, parts), token_weights(rollout.mask).tolist()]

    as_on_the_cpu(ask)


@pytest.mark.slow
def test_a_policy_is_loaded_checked_reported_and_saved(cuda, tiny_checkpoint, tmp_path):
    policy = load_policy(tiny_checkpoint, lora_rank=4)
    assert policy.device == torch.device("cuda:0") and "on cuda:0" in policy.report()
    policy.save(tmp_path)
    again = load_policy(tiny_checkpoint, adapter=tmp_path, device="cpu")
    for (_, saved), (_, loaded) in zip(policy.trainable_parameters(), again.trainable_parameters(), strict=True):
        assert saved.is_cuda and not loaded.is_cuda and torch.equal(saved.cpu(), loaded)
    load_policy(tiny_checkpoint, lora_rank=0).save(tmp_path / "whole")
    assert load_policy(tmp_path / "whole").device.type == "cuda"


# --------------------------------------------------------------------------------------------- host synchronisations


@pytest.mark.slow
def test_sampling_waits_once_per_token(cuda, tiny_checkpoint, tiny_examples, capsys):
    """And once per graph, and five times per rollout; also where rows leave at almost every second token."""
    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", check=False)
    prompts = encode_prompts(policy, tiny_examples, LABELS)
    sample_groups(policy, prompts, 2, 2, seed=0)  # what is computed once per policy is there now
    for decoding in ("graph", "static"):
        for ends in ([], range(3, 300, 40)):
            policy.end_token_ids = [*policy.end_token_ids[:1], *ends]
            cuda.syncs.clear()
            cuda.graphs.clear()
            rollout = sample_groups(policy, prompts, 8, 32, seed=0, decoding=decoding)
            waits, tokens, counts = len(cuda.syncs), rollout.mask.shape[1], cuda.counts()
            with capsys.disabled():
                ended = len(set(rollout.lengths.tolist()))
                print(f"\n{decoding}: {waits} host synchronisations for {tokens} tokens of 32 rows, {ended} lengths")
            assert waits <= tokens + len(cuda.graphs) + 5, counts
            assert sum(graph.replays for graph in cuda.graphs) >= (20 if decoding == "graph" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("buffer", ["tokens", "position", "future", "turn"])
def test_a_graph_reads_the_buffers_that_it_was_captured_with(cuda, tiny_checkpoint, tiny_examples, monkeypatch, buffer):
    """A decoder that puts something new in the place of a buffer samples other tokens: the pretence would notice."""
    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", check=False)
    prompts, step = encode_prompts(policy, tiny_examples, LABELS), StaticDecoder.step

    def forgetful(decoder, tokens):
        old = getattr(decoder, buffer)
        new = [part.clone() for part in old] if isinstance(old, list) else old.clone()
        setattr(decoder, buffer, new)
        return step(decoder, tokens)

    static, graph = (sample_groups(policy, prompts, 2, 12, seed=0, decoding=how) for how in ("static", "graph"))
    assert torch.equal(graph.completion_ids, static.completion_ids)
    monkeypatch.setattr(StaticDecoder, "step", forgetful)
    wrong = sample_groups(policy, prompts, 2, 12, seed=0, decoding="graph")
    assert not torch.equal(wrong.completion_ids, static.completion_ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "most"), [({}, 51), ({"micro_batch": 8}, 96), ({"beta": 0.0}, 44)], ids=["one-pass", "four", "no-kl"]
)
def test_a_step_waits_for_its_numbers_together(cuda, tiny_checkpoint, shots, capsys, changes, most):
    """Beside those of sampling: six for the times of its phases, and one for each pass, guard or table of numbers."""
    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", check=False)
    settings = GRPOSettings(steps=2, prompts_per_step=4, group_size=8, max_new_tokens=16, **changes)
    records = train(policy, shots, settings, rewards=[even_ids, accuracy_reward])
    next(records)
    cuda.syncs.clear()
    next(records)
    sampling = sum(where.startswith("sampling.py") and what == "tolist" for what, where in cuda.syncs)
    waits = len(cuda.syncs) - sampling
    with capsys.disabled():
        print(f"\n{changes}: {waits} host synchronisations in a step of 32 rows, and {sampling} of sampling")
    assert sampling <= 16 and waits <= most, cuda.counts()


# ---------------------------------------------------------------------------------------------------- command line

SMALL = ["--shots", "1", "--test", "1", "--steps", "2"]
SHORT_STEPS = ["--prompts-per-step", "2", "--max-new-tokens", "4"]


@pytest.fixture
def without_figures(tmp_path, monkeypatch):
    """A folder to work in, and no figures, which take most of a run's time: those of the demo are drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "draw_figures", lambda *_: {})


@pytest.mark.slow
def test_a_run_is_that_of_the_cpu(cuda, tiny_checkpoint, without_figures):
    for device in ("cpu", "cuda"):
        own = ["train", "--policy", str(tiny_checkpoint), "--device", device, *SMALL, *SHORT_STEPS]
        assert main([*own, "--group-size", "2", "--out", device]) == 0
    cpu, gpu = (RunFolder.open(device) for device in ("cpu", "cuda"))
    assert [record | {"seconds": 0} for record in gpu.records()] == [r | {"seconds": 0} for r in cpu.records()]
    for name in ("evaluation_before.json", "evaluation_after.json"):
        assert Evaluation.load(gpu.path / name).answers == Evaluation.load(cpu.path / name).answers
    assert gpu.settings["versions"]["device"] == "pretended"


@pytest.mark.slow
def test_what_a_run_is_used_for(cuda, tiny_checkpoint, without_figures, capsys):
    """Supervised training, its resumption, and what is asked of a finished run; on the GPU, which "auto" takes."""
    assert main(["sft", "--policy", str(tiny_checkpoint), *SMALL, *SHORT_STEPS, "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--steps", "3"]) == 2, "not supervised training"
    assert main(["sft", "--resume", "run", "--steps", "3"]) == 0
    assert len(RunFolder.open("run").records()) == 3
    assert main(["evaluate", "--run", "run", "--out", "evaluated"]) == 0
    draw_scene("cartoon", "test", 3).image.save("photo.png")
    assert main(["predict", "photo.png", "--run", "run", "--csv", "answers.csv"]) == 0
    assert main(["share", "run", "--out", "shared", "--merged"]) == 0
    assert main(["predict", "photo.png", "--run", "shared", "--open-vocabulary", "--device", "cuda"]) == 0
    assert "on cuda:0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_and_a_profile(cuda, tiny_checkpoint, without_figures, monkeypatch):
    policy = ["--policy", str(tiny_checkpoint), "--device", "cuda"]
    study = ["study", "--methods", "zero-shot", "grpo", "--sets", "cartoon", "--seeds", "1"]
    assert main([*study, *policy, *SMALL, "--preset", "pocket", "--out", "study"]) == 0
    rates = {"flops_per_second": 1e9, "bytes_per_second": 1e9}
    monkeypatch.setattr(profiling, "machine_rates", lambda *_: rates)  # its matrices are as large as a GPU needs
    assert main(["profile", *policy, "--shots", "1", *SHORT_STEPS, "--repeats", "1", "--out", "profile"]) == 0


@pytest.mark.slow
def test_the_demo_and_the_doctor(cuda, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "DataOptions", partial(training.DataOptions, test=1))
    assert main(["demo", "--shots", "1", "--steps", "2", "--out", "demo"]) == 0
    assert RunFolder.open("demo").settings["versions"]["device"] == "pretended"
    assert main(["doctor"]) == 0
    assert "GPU 0: pretended, 80.0 GiB" in capsys.readouterr().out
