-- What a site would write for job_submit/lua to decide as slurm-gov does for the policy of this bench:
-- give untyped GPU requests the type of their partition, refuse what a node, the pool or the team can never give.

local default_partition = "gpu"
local pools = { gpu = { name = "h100", gpu_type = "h100", nodes = 8, per_node = 8 } }
local most = { research = 64, product = 64 } -- quota and what the team may ever borrow

local fields = { "tres_per_node", "tres_per_job", "tres_per_socket", "tres_per_task" }

-- "gres:gpu:8" -> "gres:gpu:h100:8", 8; other words stay as they are
local function typed(text, gpu_type)
   local total, words = 0, {}
   for word in string.gmatch(text, "[^,]+") do
      local prefix, rest = string.match(word, "^(g?r?e?s?[:/]?)gpu(.*)$")
      if prefix then
         local kind, count = string.match(rest, "^:(%a[%w_]*)[:=]?(%d*)$")
         if not kind then
            count = string.match(rest, "^[:=]?(%d*)$")
            kind = gpu_type
         end
         local number = tonumber(count) or 1
         if kind == gpu_type then
            total = total + number
         end
         word = prefix .. "gpu:" .. kind .. ":" .. number
      end
      words[#words + 1] = word
   end
   return table.concat(words, ","), total
end

local function refuse(message)
   slurm.log_user("%s", message)
   return slurm.ERROR
end

function slurm_job_submit(job, partitions, uid)
   local pool = pools[job.partition or default_partition]
   if not pool then
      return slurm.SUCCESS
   end
   local asked = {}
   for _, field in ipairs(fields) do
      local text = job[field]
      if text and text ~= "" then
         local new, count = typed(text, pool.gpu_type)
         asked[field] = count
         if new ~= text then
            job[field] = new
         end
      end
   end
   if not next(asked) then
      return slurm.SUCCESS
   end
   local nodes = job.min_nodes
   if not nodes or nodes == slurm.NO_VAL then
      nodes = 1
   end
   local tasks = job.num_tasks
   if not tasks or tasks == slurm.NO_VAL then
      tasks = nodes
   end
   local per_node = asked.tres_per_node or 0
   if per_node > pool.per_node then
      return refuse(string.format("the job asks for %d %s on a node; the largest has %d", per_node, pool.name, pool.per_node))
   end
   if nodes > pool.nodes then
      return refuse(string.format("the job asks for %d nodes; the pool has %d", nodes, pool.nodes))
   end
   local total = math.max(asked.tres_per_job or 0, per_node * nodes, (asked.tres_per_task or 0) * tasks)
   if total > pool.nodes * pool.per_node then
      return refuse(string.format("the job asks for %d %s; the pool has %d", total, pool.name, pool.nodes * pool.per_node))
   end
   local limit = most[job.account or job.default_account or ""]
   if limit and total > limit then
      return refuse(string.format("the job asks for %d %s; its team can never hold more than %d", total, pool.name, limit))
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
   return slurm.SUCCESS
end

return slurm.SUCCESS
