-- One poll. It writes only `read`, and `shown` once, when the frame's deadline has passed.
-- ARGV: now, limit (bytes of text)
return snapshot(clock(ARGV[1]), tonumber(ARGV[2]))
