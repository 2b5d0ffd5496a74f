"""Set the rules of a deployment. A second run changes only rules that differ."""

import os

from heksher_client.admin import AdminClient

RULES = [
    ("cache_size", {"environment": "prod", "user": "jim"}, 400),
    ("cache_size", {"environment": "test"}, 100),
]

url = os.environ.get("HEKSHER_URL", "http://127.0.0.1:9999")
with AdminClient(url, token=os.environ.get("HEKSHER_TOKEN")) as admin:
    for setting, conditions, value in RULES:
        rule = admin.find_rule(setting, conditions)
        if rule is None:
            rule_id = admin.add_rule(setting, value, conditions)
            print(f"{setting}: added rule {rule_id} with {value}")
        elif rule.value != value:
            # With the ETag, a change by somebody else in between is not lost.
            admin.set_rule(rule.rule_id, value, etag=rule.etag)
            print(f"{setting}: changed {rule.value} to {value}")
