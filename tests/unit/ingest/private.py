"""A pipeline with a rule of each kind, and rows that hold what nobody may see."""

from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.runtime.state import StateView

SPEC = parse_pipeline(
    """
name: shop
task: binary
data:
  target: bought
  classes: ["no", "yes"]
  features:
    age: {min: 0, max: 120, nullable: true}
    plan: {type: category, values: [basic, pro], nullable: true}
    region: {type: category, nullable: true}
    is_new: {type: boolean, nullable: true}
  privacy:
    id: hash
    email: drop
    name: {action: mask, keep_last: 2}
    region: hash
    customer_id: hash
    phone: tokenise
    notes: {action: encrypt, subject: customer_id}
"""
)
APPLIED = PipelineApplied(pipeline="shop", spec=SPEC, applied_by="ann")


def pipelines() -> StateView[PipelineApplied]:
    return StateView(PipelineApplied, {"shop": APPLIED})


def person(number: int, **values: object) -> dict[str, object]:
    given = {
        "id": f"order-of-ada-{number}",
        "event_time": f"2024-05-01T00:{number % 60:02d}:00Z",
        "age": 36,
        "plan": "pro",
        "region": "soho",
        "is_new": True,
        "email": "ada@example.org",
        "name": "Ada Lovelace",
        "customer_id": 18151210185227,
        "phone": "+44 20 7946 0958",
        "notes": "asked for the engine",
        "address": "12 St James's Square",
        "bought": "yes",
    }
    return given | values


SECRETS = (
    "order-of-ada", "soho", "ada@example.org", "Ada L", "Lovelace", "18151210185227",
    "+44 20", "7946 0958", "engine", "James",
)  # fmt: skip

CUSTOMER = "18151210185227"
PHONE = "+44 20 7946 0958"
