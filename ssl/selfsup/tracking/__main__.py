from selfsup.tracking import live

live.record()
