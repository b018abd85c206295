-- One poll. Writes nothing but `read`, and `shown` once, when the frame's time is over.
-- ARGV: now, limit (bytes of text)
return snapshot(clock(ARGV[1]), tonumber(ARGV[2]))
