-- Load for `wrk`: one text per request, each with its own seed.
--   flm serve quickstart/fmlm --max-batch 32
--   MODEL=fmlm wrk -t2 -c8 -d10s --latency -s crates/flm-server/benches/load.lua http://127.0.0.1:8080
local model = os.getenv("MODEL")
local steps = os.getenv("STEPS")
local thread = 0

function setup(t)
  thread = thread + 1
  t:set("first", thread * 1e7)
end

function request()
  first = first + 1
  local body = string.format('{"model": "%s", "seed": %d%s}', model, first, steps and ', "steps": ' .. steps or "")
  return wrk.format("POST", "/v1/completions", { ["content-type"] = "application/json" }, body)
end
