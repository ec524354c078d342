-- wrk calls done once, at the end; nothing here runs while it measures.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\nresult %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
    e.connect, e.read, e.write, e.timeout, e.status, latency:percentile(50)))
end
