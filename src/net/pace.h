#pragma once
// A beat that the tasks of a thread keep together. Tasks that poll at one rate but each from its own start wake the thread once
// each; on a beat, one timer and one wake-up serve them all.
#include "net/http.h"

namespace baton::net {

// Until the next moment that is `phase` behind a multiple of `period`; at once if this thread is stopping.
Task<> sleep_until_beat(Millis period, Millis phase = Millis(0));

}  // namespace baton::net
