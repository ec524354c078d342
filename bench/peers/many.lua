-- wrk asks for one of many URLs, at random; their requests are made before the first.
local requests = {}

function init(args)
  math.randomseed(1)
  for i = 1, tonumber(args[1]) do
    requests[i] = wrk.format("GET", wrk.path .. "?" .. i)
  end
end

function request()
  return requests[math.random(#requests)]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("\nresult %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
    e.connect, e.read, e.write, e.timeout, e.status, latency:percentile(50)))
end
