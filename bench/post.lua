wrk.method = "POST"
wrk.body = '{"item":"book","amount":3}'
wrk.headers["Authorization"] = "user"
wrk.headers["Content-Type"] = "application/json"
