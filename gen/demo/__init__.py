"""One page in the browser, with a tab for each way to use a method (`scripts/demo.py`).

Needs Gradio, extra `demo`; no other part of gen imports this package. A tab is a module here and a
row of `TABS`, and has the name that its task gives.
"""

from typing import NamedTuple

from gen import tasks


class Role(NamedTuple):
    """A method that a tab shows."""

    checkpoint: str  # shipped checkpoint
    task: str  # row of `gen.tasks.TASKS`
    has: str = "domains"  # attribute that the tab needs, where the task alone does not decide

    @property
    def what(self) -> str:
        named = {"attribute_names": "an AttributeClassifier"}
        return named.get(self.has, tasks.TASKS[self.task].what)


TABS = {  # module with the function `tab` -> title, and roles by the names of their options
    "translate": ("Translate", {"translator": Role("smooth_i2i_emoji64", "translator")}),
    "edit": (
        "Edit",
        {
            "editor": Role("style_function_heads64", "editor"),
            "judge": Role("attribute_classifier_heads64", "classifier", "attribute_names"),
        },
    ),
    "move": ("Click to move", {"mover": Role("click_to_move_movers", "animator")}),
}
TABS = {row.tab: TABS[row.tab] for row in tasks.TASKS.values() if row.tab}
ROLES = {name: role for _, roles in TABS.values() for name, role in roles.items()}
