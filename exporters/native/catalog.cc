// Every operator of the domain ai.slmc.
#include "operator.h"

namespace slmc {

const std::vector<Operator>& all_operators() {
  static const std::vector<Operator> all = {
      qlinear_operator(),
      table_linear_operator(),
      half_linear_operator(),
      qembedding_operator(),
      table_embedding_operator(),
      sign_embedding_operator(),
      lif_operator(),
      wkv_operator(),
      rms_norm_operator(),
      shift_mix2_operator(),
      shift_mix3_operator(),
      gated_wkv_operator(),
      spike_add_operator(),
      gated_spike_add_operator(),
      squared_relu_operator(),
      event_linear_operator(),
      sparse_linear_operator(),
      cached_attention_operator(),
      cached_attention_int8_operator(),
      cached_attention_half_operator(),
      integrate_fire_operator(),
      fused_operator(),
      plif_operator(),
      linear_recurrence_operator(),
      delta_rule_operator(),
      anchored_attention_operator(),
      anchored_attention_int8_operator(),
      ternary_linear_operator(),
  };
  return all;
}

}  // namespace slmc
