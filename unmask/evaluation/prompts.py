"""What a model is asked: the prompt of every document, as a string.

    builder = PromptBuilder(cfg.task, tokenizer, chat_options)
    builder.requests(task)          # lm-eval's instances of all documents of a task

A prompt is a system turn, worked examples and the question, in one of three forms (`task.prompt`):

    chat        the tokenizer's chat template; each example is a user's and an assistant's turn
    one_turn    the chat template; examples and question are one user's turn
    text        no template: examples and question as one string

`task.bos` puts the tokenizer's start token in front, `task.suffix` follows the question, and the answer may
be begun (`gen_prefix`). `python -m unmask.prompts FILE` compares with the prompts of published code.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.api.utils import Message, messages_to_text
from lm_eval.utils import apply_template

SHOTS_SEED = 1234  # lm-eval's
ANSWER = "{{ANSWER_OF_TURN_{turn}}}"  # stands for an answer that is not given yet


class PromptBuilder:
    """Builds the prompts of a task.

    settings: a TaskConfig. tokenizer: a tokenizer of transformers; only its chat template and its start token
    are used. chat_options: for the chat template, as in {"enable_thinking": False}.

    ValueError where the tokenizer lacks what the settings ask for.
    """

    def __init__(self, settings: Any, tokenizer: Any, chat_options: Mapping[str, Any] | None = None):
        self.settings, self.tokenizer, self.chat_options = settings, tokenizer, dict(chat_options or {})
        if settings.prompt != "text" and not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"task.prompt={settings.prompt}: this model has no chat template (a base model?): "
                "set task.prompt=text"
            )
        if settings.prompt == "text" and settings.system_prompt:
            raise ValueError("task.prompt=text: has no system turn; set task.system_prompt=null")
        if settings.bos and not tokenizer.bos_token:
            raise ValueError("task.bos=true: this model's tokenizer has no start token; set task.bos=false")

    def requests(self, task: Task) -> list[Instance]:
        """An instance of lm-eval for every document of a task, in order, with its prompt."""
        prompt_of = self.prompts(task)
        name, documents = task.config.task, task.eval_docs
        return [
            Instance("generate_until", doc, (prompt_of(number, doc), {}), 0, (name, number, 1))
            for number, doc in enumerate(documents)
        ]

    def prompts(self, task: Task) -> Callable[..., str]:
        """prompt(number, document, answers=()) of a task's document; the number decides which examples are
        drawn.

        answers: to the earlier turns of a document that has some (column `earlier`); for those that are not
        given, {ANSWER_OF_TURN_1} stands.
        """
        examples = self._examples(task)

        def prompt(number: int, doc: Mapping, answers: Sequence[str] = ()) -> str:
            shots = [self._turn(task, example, shot=True) for example in examples(number)]
            before = [
                [Message("user", question), Message("assistant", answer)]
                for question, answer in zip(doc.get("earlier", ()), _all_answers(doc, answers), strict=True)
            ]
            turns = [*shots, *before, self._turn(task, doc)]
            return self._render([message for turn in turns for message in turn], self._begun(task, doc))

        return prompt

    def _examples(self, task: Task) -> Callable[[int], list[Mapping]]:
        """examples(number): the worked examples that stand before document `number` of its split."""
        count, settings = task.config.num_fewshot or 0, self.settings
        pool = list(task.fewshot_docs() or ()) if count else []
        if settings.shots == "first" or not count:
            return lambda number: pool[:count]
        rng, draws = random.Random(SHOTS_SEED), []

        def drawn(number: int) -> list[Mapping]:
            index = number // settings.shot_processes
            index = 2 * index + 1 if settings.shots == "drawn_twice" else index
            while len(draws) <= index:
                draws.append(rng.sample(range(len(pool)), count))
            return [pool[row] for row in draws[index]]

        return drawn

    def _turn(self, task: Task, doc: Mapping, shot: bool = False) -> list[Message]:
        """A question; of a worked example also its answer. lm-eval's messages, which know what separates
        them in plain text."""
        if not shot:
            return task.build_qa_turn(q=task.doc_to_text(doc) + self.settings.suffix)
        own = task.fewshot_cfg
        return task.build_qa_turn(
            q=task.doc_to_text(doc, own.doc_to_text),
            a=task.doc_to_target(doc, own.doc_to_target),
            tgt_delim=own.target_delimiter,
            few_delim=own.fewshot_delimiter,
        )

    def _begun(self, task: Task, doc: Mapping) -> str:
        """The beginning of the answer."""
        given = self.settings.gen_prefix
        if given is None:
            return task.doc_to_prefix(doc) or ""
        try:
            return apply_template(given, doc)
        except Exception as error:  # whatever a template can stumble over
            raise ValueError(
                f"task.gen_prefix={given[:100]!r}: must be a template over the columns "
                f"{', '.join(map(str, doc))} ({error})"
            ) from error

    def _render(self, messages: list[Message], begun: str) -> str:
        settings = self.settings
        start = self.tokenizer.bos_token if settings.bos else ""
        if settings.prompt == "text":
            return start + messages_to_text(messages) + begun
        if settings.prompt == "one_turn":
            messages = [Message("user", messages_to_text(messages))]
        chat = [message.to_dict() for message in messages]
        if settings.system_prompt:
            chat.insert(0, {"role": "system", "content": settings.system_prompt})
        # The answer's beginning is appended here: transformers' continue_final_message strips its last
        # newlines in some versions.
        return start + render(self.tokenizer, chat, self.chat_options) + begun


def render(tokenizer: Any, chat: Sequence[Mapping], chat_options: Mapping[str, Any] | None = None) -> str:
    """A chat as the tokenizer's template writes it, up to where the assistant's turn begins.

    transformers runs the template in Jinja's sandbox; ValueError where it fails or leaves the sandbox.
    """
    try:
        return tokenizer.apply_chat_template(
            list(chat), tokenize=False, add_generation_prompt=True, **(chat_options or {})
        )
    except (TemplateError, TypeError) as error:  # TypeError: it includes a file, and nothing loads files
        raise ValueError(f"the tokenizer's chat template fails ({error})") from error


def prompt_text(
    tokenizer: Any,
    question: str,
    system_prompt: str | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> str:
    """A question alone, after the system's turn where there is one. chat_options: of the chat template."""
    chat = [{"role": "user", "content": question}]
    if system_prompt is not None:
        chat.insert(0, {"role": "system", "content": system_prompt})
    return render(tokenizer, chat, chat_options)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text. The prompt's builder has written all special tokens that the model expects: none is
    added (a second BOS changes scores)."""
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_ids(
    tokenizer: Any,
    question: str,
    system_prompt: str | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> list[int]:
    """The ids of `prompt_text`."""
    return text_ids(tokenizer, prompt_text(tokenizer, question, system_prompt, chat_options))


def shown(requests: Sequence[Instance], tokenizer: Any, count: int = 3) -> Iterator[str]:
    """The first prompts and their ids, for people. No weights are needed:

    evaluation = Evaluation.of("task=mbpp", ...)
    print("\\n\\n".join(shown(evaluation.requests, evaluation.main.tokenizer)))
    """
    for request in islice(requests, count):
        prompt = request.args[0]
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        yield f"document {request.doc_id} of {request.task_name}, {len(ids)} ids\n{prompt}\n{ids}"


def _all_answers(doc: Mapping, answers: Sequence[str]) -> list[str]:
    """The given answers to a document's earlier turns, and stand-ins for the others."""
    turns = len(doc.get("earlier", ()))
    return [*answers, *(ANSWER.format(turn=turn) for turn in range(len(answers) + 1, turns + 1))]
