#pragma once
// The rows of the table of families, each in the file of its name.
#include "model/families/family.h"

namespace baton::model {

extern const Family kLlama, kQwen2, kQwen3, kQwen3Moe, kGemma2, kGemma3, kPhi3, kSmolLm3, kGptOss;

}  // namespace baton::model
