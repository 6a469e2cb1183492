-- Sends the lines of a file in turn and says what was seen as one line of JSON.
local requests, turn = {}, 0

function init(arguments)
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  for body in io.lines(arguments[1]) do
    table.insert(requests, wrk.format(nil, nil, nil, body))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "errors": %d, "median_ms": %.4f, "p99_ms": %.4f}',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
