"""Write the digests of the networks and figures that a wheel carries into its bill of materials.

    python experiments/bill/digests.py

After a change of the network that ships. `fer_voting.cdx.json` has a component for each file; an int8 file has the
component of the other ONNX file under its own name.
"""

import copy
import json
from hashlib import sha256
from pathlib import Path

REPO = Path(__file__).parents[2]
BILL = Path(__file__).with_name("fer_voting.cdx.json")
FLOAT32, INT8 = (f"fer_voting/pretrained/fer_voting/model{suffix}.onnx" for suffix in ("", "-int8"))


def main() -> None:
    bill = json.loads(BILL.read_text())
    components = [each for each in bill["components"] if each["name"] != INT8]
    if (REPO / INT8).is_file():
        position = next(number for number, each in enumerate(components) if each["name"] == FLOAT32)
        component = copy.deepcopy(components[position]) | {"bom-ref": INT8, "name": INT8}
        components.insert(position + 1, component)
    for each in components:
        if (REPO / each["name"]).is_file():
            each["hashes"] = [{"alg": "SHA-256", "content": sha256((REPO / each["name"]).read_bytes()).hexdigest()}]
    BILL.write_text(json.dumps(bill | {"components": components}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
