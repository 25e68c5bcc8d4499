"""The console: a page on the HTTP port that shows how the node is, and changes nothing."""
