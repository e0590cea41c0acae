-- Asks as another user each time: each line of a file is a Cookie header.
function init(args)
  asked, turn = {}, 0
  for line in io.lines(args[1]) do
    asked[#asked + 1] = wrk.format("GET", nil, line ~= "" and { Cookie = line } or {})
  end
end

function request()
  turn = turn % #asked + 1
  return asked[turn]
end
