"""One file per component of a FATE pipeline. A file holds `KINDS`, the names of its class without the role, and either
`transform` (columns before it -> columns after it) or `model` (columns -> model)."""
