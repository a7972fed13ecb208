#include "route/params.h"

namespace baton::route {

Params::Params() = default;
Params::Params(const Params& other) = default;
Params::Params(Params&& other) noexcept = default;
Params& Params::operator=(const Params& other) = default;
Params& Params::operator=(Params&& other) noexcept = default;
Params::~Params() = default;

bool Params::operator==(const Params& other) const {
  return static_cast<const AnyParams&>(*this) == static_cast<const AnyParams&>(other);
}

}  // namespace baton::route
