"""What an answer cost in floating-point operations, estimated from its counts and the models' shapes."""

from collections.abc import Mapping

from unmask.records.files import RecordError
from unmask.records.sample import step_role

Shapes = Mapping[str, Mapping[str, int]]
"""role -> body_parameters, head_parameters, layers, width; of a block drafter also context_parameters, which
make the keys and values of a token of its context (run.json: `shapes`)."""


def flops_of(sample: Mapping, shapes: Shapes) -> float:
    """Floating-point operations of one sample, a multiply-add counted as two.

    An estimate, to compare methods without a clock. It holds, of every role, the matrix products of the body
    for every position fed (of experts, the chosen ones), attention of each of these to the whole context
    (prompt and canvas, whatever the mask hides: an upper bound), what a block drafter makes of its context,
    and the head (`heads_of`).

    It leaves out the step role's head at masked positions that it reads and does not commit, which the record
    does not tell (a decoder in any order reads its whole block), norms, activations, the embedding table and
    sampling.

    RecordError for a role without a shape.
    """
    context = sample["prompt_length"] + sample["max_new_tokens"]
    total = 0.0
    for role, fed in sample["positions"].items():
        if role not in shapes:
            raise RecordError(
                f"run.json: shapes has {sorted(shapes)} but no {role}; FLOPs cannot be estimated"
            )
        shape = shapes[role]
        known = sample["prompt_length"] + len(sample["ids"])  # what a block drafter's context takes in
        total += 2 * shape.get("context_parameters", 0) * known
        total += fed * (2 * shape["body_parameters"] + 4 * shape["layers"] * shape["width"] * context)
    return total + sum(
        2 * shapes[role]["head_parameters"] * rows for role, rows in heads_of(sample, shapes).items()
    )


def heads_of(sample: Mapping, shapes: Shapes) -> dict[str, int]:
    """Role -> positions that its head ran on, as far as the record tells.

    A model that judges or drafts reads its head at every position fed, except in the prompt, of which the
    last one counts; a block drafter, which is not fed the prompt, at all. The denoiser of an unmasking
    decoder: one row for every committed id, a lower bound.
    """
    found, first = {}, step_role(sample)
    verifies = "drafter" in sample["forwards"]
    for role, fed in sample["positions"].items():
        if role == first and not verifies:
            found[role] = len(sample["ids"])
        elif "context_parameters" in shapes[role]:
            found[role] = fed
        else:
            found[role] = max(min(fed, sample["forwards"][role]), fed - sample["prompt_length"] + 1)
    return found
