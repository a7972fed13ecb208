// Exchange's two legs at the same time.
#include "net/all.h"
#include "net/mailbox.h"
#include "sidecar/exchange.h"

namespace baton::sidecar {

net::Task<Prefill> Exchange::both(const HostPort& host, PrefillAsk prefill_ask, DecodeAsk decode_ask, bool hold) {
  net::Cancel prefill_ends, decode_ends;
  auto client_left = cancel().on_cancel([&] {
    prefill_ends.cancel();
    decode_ends.cancel();
  });
  net::Mailbox<bool> good;  // the prefill leg's outcome, for a decode leg that is held
  Prefill outcome;
  bool known = false;
  auto run_prefill = [&]() -> net::Task<> {
    prefill_ask.cancel = &prefill_ends;
    outcome = co_await prefill(host, prefill_ask);
    known = true;
    good.push(outcome.ok);
    // Once the client has seen something, decode has its KV, or says so itself.
    if (!outcome.ok && !writer_.started()) decode_ends.cancel();
  };
  auto run_decode = [&]() -> net::Task<> {
    decode_ask.cancel = &decode_ends;
    decode_ask.may_answer = [&]() -> net::Task<bool> {
      if (hold) co_return (co_await good.pop()).value_or(false);
      co_return !known || outcome.ok;
    };
    if (co_await decode(decode_ask) == Decoded::kAnswered) prefill_ends.cancel();
  };
  co_await net::all(run_prefill(), run_decode());
  if (answered()) outcome.ok = true;
  co_return outcome;
}

}  // namespace baton::sidecar
