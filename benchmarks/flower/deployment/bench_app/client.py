"""A client: what it was sent, and something that depends on who it is and on the round."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a round."""
    params = message.content["arrays"].to_numpy_ndarrays()[0]
    number = int(message.content["config"]["server-round"]) - 1
    partition = int(context.node_config["partition-id"])
    after = params + np.float32((partition + 1) * (number + 1) * 1e-3)
    content = {"arrays": ArrayRecord([after]), "metrics": MetricRecord({"num-examples": 100})}
    return Message(RecordDict(content), reply_to=message)
