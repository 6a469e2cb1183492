"""What a model may write: fields, the output they declare, and everything that follows from it.

A leaf: it knows JSON and regular expressions, and no task, token, model or HTTP.
"""
