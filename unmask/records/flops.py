"""What an answer cost in floating-point operations, estimated from its counts and the models' shapes."""

from collections.abc import Mapping

from unmask.records.files import RecordError
from unmask.records.sample import step_role

Shapes = Mapping[str, Mapping[str, int]]
"""role -> body_parameters, head_parameters, layers, width; of a block drafter also context_parameters, which
make the keys and values of a token of its context (run.json: `shapes`)."""


def flops_of(sample: Mapping, shapes: Shapes) -> float:
    """Floating-point operations of one sample, a multiply-add counted as two.

    An estimate, to compare methods without a clock. It holds the matrix products of the body for every
    position fed, attention of each of these to the whole context (prompt and canvas, whatever the mask hides:
    an upper bound), what a block drafter makes of its context, and the step role's head for every committed
    id. It leaves out the head at positions that
    commit nothing and the heads of other roles (APD's auxiliary has one, run on every judged position),
    norms, activations, the embedding table and sampling.

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
    return total + 2 * shapes[step_role(sample)]["head_parameters"] * len(sample["ids"])
