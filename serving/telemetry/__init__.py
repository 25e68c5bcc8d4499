"""What a node tells about itself: logs, figures of its requests, and all of it in Prometheus's text form."""
