#pragma once
// Generating endpoints: one coroutine a request on its I/O thread, from the JSON body to the last byte of the answer, whatever
// the API (asked.h). Guarantees: a client that leaves aborts its sequences at once; a grant named in kv_transfer_params is
// fetched or declined on every path; the response head is sent when the first token is ready, with the waterfall in x-baton-ttft.
#include "engine/asked.h"
#include "engine/reply.h"
#include "net/http.h"

namespace baton::engine {

net::Task<> serve_generate(const Serving& serving, const Api& api, net::Request& request, net::ResponseWriter& out);

// The same in two parts, for who answers twice: a request that is ready to run, and its answer.
class Generation {
 public:
  virtual ~Generation() = default;
  virtual const wire::Head& head() const = 0;
  virtual net::Task<> answer(net::ResponseWriter& out) = 0;  // once, on the thread that prepared it
  virtual std::function<void()> canceller() const = 0;       // ends it from any thread; harmless after its end
};
Result<std::unique_ptr<Generation>> prepare_generation(const Serving& serving, const net::Request& request, const Json& body,
                                                       const ReadAsked& read);

}  // namespace baton::engine
