"""Judge models: what they are asked about responses, and what they say."""
