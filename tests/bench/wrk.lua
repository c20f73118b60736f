-- What scripts/bench has wrk do. BENCH_BODY: POST this; BENCH_IDS: GET a random one of the ids in this file,
-- one a line, under the URL's path; neither: GET the URL. The last line of the output is the result, as JSON;
-- times in µs.

local body, ids = os.getenv("BENCH_BODY"), os.getenv("BENCH_IDS")

if body then
    wrk.method, wrk.body = "POST", body
    wrk.headers["Content-Type"] = "application/json"
elseif ids then
    local requests = {}
    function init()
        for id in io.lines(ids) do
            requests[#requests + 1] = wrk.format("GET", wrk.path .. "/" .. id)
        end
        math.randomseed(tonumber(os.getenv("BENCH_SEED")))
    end
    function request()
        return requests[math.random(#requests)]
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"answered":%d,"refused":%d,"broken":%d,"us":%d,"p50":%d,"p99":%d,"max":%d}\n',
        summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
        summary.duration, latency:percentile(50), latency:percentile(99), latency.max))
end
