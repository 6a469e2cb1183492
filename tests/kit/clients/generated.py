"""The client that openapi-python-client generated: argv[1] is the service, argv[2] the folder that
the package ``client`` lies in, argv[3] a month request as JSON."""

import io
import json
import sys

url, folder, request = sys.argv[1:]
sys.path.insert(0, folder)
from client import Client, models  # noqa: E402
from client.api.openai import models as list_models  # noqa: E402
from client.api.operations import readyz  # noqa: E402
from client.api.routine import month, next_, rate, rate_batch  # noqa: E402
from client.types import File  # noqa: E402

asking = Client(base_url=url)
assert readyz.sync(client=asking).status == "ready"
assert {one.id for one in list_models.sync(client=asking).data} >= {"rate", "month"}

asked = json.loads(request)
profile = {name: asked[name] for name in ("experience", "gender", "purpose", "rm_weight")}
rates = rate.sync(client=asking, body=models.Profile.from_dict(profile))
assert isinstance(rates, models.RateAnswer), rates
names = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
cycle = {**profile, "rates": {name: getattr(rates, name) for name in names}}
whole = month.sync(client=asking, body=models.MonthRequest.from_dict({**cycle, "days_per_week": 3}))
assert len(whole.weeks) == 4 and whole.weeks[0].days[0].lifts[0].sets[0].kg > 0, whole
reached = {"bench_press": 5, "squat": 3, "dead_lift": 1, "over_head_press": 0}
after = next_.sync(
    client=asking, body=models.NextRequest.from_dict({**cycle, "repetitions": reached})
)
assert after.profile.rm_weight.squat > 0, after
lines = "".join(json.dumps(profile) + "\n" for _ in range(3))
answers = rate_batch.sync(client=asking, body=File(payload=io.BytesIO(lines.encode())))
found = [json.loads(line) for line in answers.payload.read().splitlines()]
assert [one["response"]["body"]["program"] for one in found] == [rates.program] * 3, found
wrong = rate.sync(client=asking, body=models.Profile.from_dict({**profile, "purpose": 9}))
assert isinstance(wrong, models.Error) and wrong.error.param == "purpose", wrong
