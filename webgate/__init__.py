"""The gateway: one pane, one board, in a browser. The only package that imports bottle and gevent."""
