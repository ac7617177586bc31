// Neighbourhood attention on the CPU. Vectors run along the keys of a window row for scores (keys packed channel by
// channel) and along channels for weighted sums. Every output element is written by one task: no atomics.

#include "attention_blocks.h"
#include "kernels.h"

namespace styleloom {
namespace SL_ISA {
namespace {

constexpr double kMasked = -1e30;

// Queries (or keys) that go through each stage together. The stages of one alone are a chain of dependent steps; those
// of several overlap in the processor.
constexpr int64_t kTogether = 8;

template <class T>
int64_t padded_channels(const Window& w) {
  return round_up(w.channels, lanes<T>());
}

// On each axis a key is seen by K queries, and by up to K/2 more for every border that is near.
int64_t most_seen(int64_t kernel) { return kernel + 2 * (kernel / 2); }

// Private memory beside the packed rows. Positions of a tensor lie heads * D apart, too far for the processor to
// prefetch: a row's operands and results are copied in loops of their own, where many misses overlap.
template <class T>
struct Workspace {
  int64_t pitch;                              // of one row of scores
  T *scores[kTogether], *slopes[kTogether];   // [rows][pitch] of one query or key
  int64_t position;                           // padded channels
  T *in, *more_in, *out, *more_out;           // [columns][padded channels]

  Workspace(Scratch<T>& scratch, const Window& w) {
    pitch = round_up(most_seen(w.kernel_x), lanes<T>());
    position = padded_channels<T>(w);
    for (int64_t i = 0; i < kTogether; ++i) {
      scores[i] = scratch.take(most_seen(w.kernel_y) * pitch);
      slopes[i] = scratch.take(most_seen(w.kernel_y) * pitch);
    }
    const int64_t row = ceil_div(w.width, w.dilation_x) * position;
    in = scratch.take(row);
    more_in = scratch.take(row);
    out = scratch.take(row);
    more_out = scratch.take(row);
  }
};

template <class T>
int64_t bias_pitch(const Window& w) {
  return 2 * w.kernel_x - 1 + most_seen(w.kernel_x) + lanes<T>();
}

template <class T>
int64_t scratch_size(const Window& w) {
  const int64_t members = ceil_div(w.height, w.dilation_y), columns = ceil_div(w.width, w.dilation_x);
  const int64_t rows = smaller(members, band_rows(w) + 2 * most_seen(w.kernel_y));
  const int64_t packed = w.channels * planar_pitch<T>(columns) + padded_channels<T>(w) * columns;
  const int64_t scalars = 2 * planar_pitch<T>(columns);
  const int64_t area = most_seen(w.kernel_y) * round_up(most_seen(w.kernel_x), lanes<T>());
  const int64_t work = kTogether * 2 * area + 4 * columns * padded_channels<T>(w);
  const int64_t tables = 2 * (2 * w.kernel_y - 1) * bias_pitch<T>(w);
  return rows * (2 * packed + scalars) + work + tables + (16 + 2 * kTogether) * 16;  // 16: alignment of each piece
}

template <class T>
void copy_scaled(const T* source, int64_t count, T scale, T* target) {
  for (int64_t i = 0; i < count; ++i) target[i] = scale * source[i];
}

// One head's bias table with padded rows, so that a vector may be read at every start; flipped on both axes for the
// passes that run over the queries of a key.
template <class T>
T* pack_bias(Scratch<T>& scratch, const Window& w, const T* rpb, int64_t head, bool flipped) {
  if (rpb == nullptr) return nullptr;
  const int64_t height = 2 * w.kernel_y - 1, width = 2 * w.kernel_x - 1, pitch = bias_pitch<T>(w);
  const T* source = rpb + head * height * width;
  T* table = scratch.take(height * pitch);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < pitch; ++x) {
      const int64_t from = flipped ? (height - 1 - y) * width + (width - 1 - x) : y * width + x;
      table[y * pitch + x] = x < width ? source[from] : T(0);
    }
  }
  return table;
}

// Where in a packed bias table the window begins whose first row and column lie (dy, dx) from the other position.
template <class T>
T* bias_corner(T* table, const Window& w, int64_t dy, int64_t dx, int64_t pitch) {
  return table == nullptr ? nullptr : table + (dy + w.kernel_y - 1) * pitch + (dx + w.kernel_x - 1);
}

// scores [rows][columns] += bias rows; the lanes beyond `columns` are masked. Returns the largest score.
template <class T>
T add_bias(T* scores, int64_t pitch, int64_t rows, int64_t columns, const T* bias, int64_t bias_row_pitch) {
  Vec<T> highest = splat(T(kMasked));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      Vec<T> s = load(scores + r * pitch + lane);
      if (bias != nullptr) s += load(bias + r * bias_row_pitch + lane);
      s = lanes_below<T>(columns - lane) ? s : splat(T(kMasked));
      highest = s > highest ? s : highest;
      store(scores + r * pitch + lane, s);
    }
  }
  return max<T>(highest);
}

// scores <- e^(scores - shift); returns their sum. Masked lanes become 0.
template <class T>
T exponentiate(T* scores, int64_t pitch, int64_t rows, int64_t columns, T shift) {
  Vec<T> total = {};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      Vec<T> p = exp(load(scores + r * pitch + lane) - shift);
      p = lanes_below<T>(columns - lane) ? p : Vec<T>{};
      total += p;
      store(scores + r * pitch + lane, p);
    }
  }
  return sum<T>(total);
}

template <class T>
struct ForwardPass {
  Planar<T> keys;
  Interleaved<T> values;
  const T* bias;
};

template <class T>
void forward_queries(const AttentionArgs<T>& args, const Task& t, int64_t row, int64_t col, int64_t count,
                     const ForwardPass<T>& pass, const Workspace<T>& work) {
  const Window& w = args.window;
  const int64_t y = t.rows.first_key(row), pitch = bias_pitch<T>(w);
  T total[kTogether];
  for (int64_t i = 0; i < count; ++i) {
    dots(work.in + (col + i) * work.position, w.channels, pass.keys, y, t.cols.first_key(col + i), w.kernel_y,
         w.kernel_x, work.scores[i], work.pitch);
  }
  for (int64_t i = 0; i < count; ++i) {
    const T* bias = bias_corner(pass.bias, w, y - row, t.cols.first_key(col + i) - (col + i), pitch);
    const T highest = add_bias(work.scores[i], work.pitch, w.kernel_y, w.kernel_x, bias, pitch);
    total[i] = exponentiate(work.scores[i], work.pitch, w.kernel_y, w.kernel_x, highest);
    *at(args.lse, w, t, row, col + i) = highest + T(::log(total[i]));
  }
  for (int64_t i = 0; i < count; ++i) {
    T* out = work.out + (col + i) * work.position;
    weighted_sum(work.scores[i], work.pitch, pass.values, y, t.cols.first_key(col + i), w.kernel_y, w.kernel_x, out);
    copy_scaled(out, w.channels, T(1) / total[i], out);
  }
}

// Calls f(first column, count) for the positions of a row, at most kTogether at a time.
template <class F>
void for_columns(const Task& t, F&& f) {
  for (int64_t col = 0; col < t.cols.members; col += kTogether) f(col, smaller(kTogether, t.cols.members - col));
}

template <class T>
void forward(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first >= t.last) continue;
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    const int64_t top = t.rows.first_key(t.first), bottom = t.rows.first_key(t.last - 1) + w.kernel_y;
    const ForwardPass<T> pass = {pack_planar(scratch, args.k, w, t, w.channels, top, bottom),
                                 pack_interleaved(scratch, args.v, w, t, w.channels, top, bottom),
                                 pack_bias(scratch, w, args.rpb, t.head, false)};
    for (int64_t row = t.first; row < t.last; ++row) {
      gather_rows(args.q, w, t, w.channels, row, row + 1, T(w.scale), work.in);
      for_columns(t, [&](int64_t col, int64_t count) { forward_queries(args, t, row, col, count, pass, work); });
      scatter_row(work.out, args.out, w, t, row, T(1));
    }
  }
}

// slopes <- probabilities * (slopes - delta), the gradient of the scores.
template <class T>
void softmax_gradient(const T* probabilities, T* slopes, int64_t pitch, int64_t rows, int64_t columns, T delta) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      const int64_t i = r * pitch + lane;
      store(slopes + i, load(probabilities + i) * (load(slopes + i) - delta));
    }
  }
}

template <class T>
void add_rows(const T* source, int64_t pitch, int64_t rows, int64_t columns, T* target, int64_t target_pitch) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      T* place = target + r * target_pitch + lane;
      store(place, load(place) + load(source + r * pitch + lane));
    }
  }
}

template <class T>
struct QueryPass {
  Planar<T> keys, values;
  Interleaved<T> key_rows;
  const T* bias;
  T* grad_bias;
};

template <class T>
void backward_of_queries(const AttentionArgs<T>& args, const Task& t, int64_t row, int64_t col, int64_t count,
                         const QueryPass<T>& pass, const Workspace<T>& work) {
  const Window& w = args.window;
  const int64_t y = t.rows.first_key(row), pitch = bias_pitch<T>(w);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t x = t.cols.first_key(col + i), place = (col + i) * work.position;
    dots(work.in + place, w.channels, pass.keys, y, x, w.kernel_y, w.kernel_x, work.scores[i], work.pitch);
    dots(work.more_in + place, w.channels, pass.values, y, x, w.kernel_y, w.kernel_x, work.slopes[i], work.pitch);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t dx = t.cols.first_key(col + i) - (col + i);
    const T* bias = bias_corner(pass.bias, w, y - row, dx, pitch);
    add_bias(work.scores[i], work.pitch, w.kernel_y, w.kernel_x, bias, pitch);
    exponentiate(work.scores[i], work.pitch, w.kernel_y, w.kernel_x, *at(args.lse, w, t, row, col + i));
    softmax_gradient(work.scores[i], work.slopes[i], work.pitch, w.kernel_y, w.kernel_x,
                     *at(args.delta, w, t, row, col + i));
    if (pass.grad_bias != nullptr) {
      T* corner = bias_corner(pass.grad_bias, w, y - row, dx, pitch);
      add_rows(work.slopes[i], work.pitch, w.kernel_y, w.kernel_x, corner, pitch);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    weighted_sum(work.slopes[i], work.pitch, pass.key_rows, y, t.cols.first_key(col + i), w.kernel_y, w.kernel_x,
                 work.out + (col + i) * work.position);
  }
}

template <class T>
void run_query_pass(const AttentionArgs<T>& args, const Task& t, Scratch<T> scratch, const Workspace<T>& work,
                    T* grad_bias) {
  const Window& w = args.window;
  const int64_t top = t.rows.first_key(t.first), bottom = t.rows.first_key(t.last - 1) + w.kernel_y;
  const QueryPass<T> pass = {pack_planar(scratch, args.k, w, t, w.channels, top, bottom),
                             pack_planar(scratch, args.v, w, t, w.channels, top, bottom),
                             pack_interleaved(scratch, args.k, w, t, w.channels, top, bottom),
                             pack_bias(scratch, w, args.rpb, t.head, false), grad_bias};
  for (int64_t row = t.first; row < t.last; ++row) {
    gather_rows(args.q, w, t, w.channels, row, row + 1, T(w.scale), work.in);
    gather_rows(args.grad_out, w, t, w.channels, row, row + 1, T(1), work.more_in);
    for_columns(t, [&](int64_t col, int64_t count) { backward_of_queries(args, t, row, col, count, pass, work); });
    scatter_row(work.out, args.grad_q, w, t, row, T(w.scale));
  }
}

template <class T>
void backward_query(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  const int64_t table_rows = 2 * w.kernel_y - 1, table_cols = 2 * w.kernel_x - 1, pitch = bias_pitch<T>(w);
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    T* grad_bias = nullptr;
    if (args.grad_rpb != nullptr) {
      grad_bias = scratch.take(table_rows * pitch);
      for (int64_t i = 0; i < table_rows * pitch; ++i) grad_bias[i] = T(0);
    }
    if (t.first < t.last) run_query_pass(args, t, scratch, work, grad_bias);
    if (grad_bias != nullptr) {
      T* target = args.grad_rpb + index * table_rows * table_cols;
      for (int64_t y = 0; y < table_rows; ++y) {
        copy_scaled(grad_bias + y * pitch, table_cols, T(1), target + y * table_cols);
      }
    }
  }
}

template <class T>
struct KeyPass {
  Planar<T> queries, grads, lse, delta;
  Interleaved<T> query_rows, grad_rows;
  const T* bias;
};

// Probabilities and score gradients of the queries [rows][columns] from (y, x) on that see one key, in place of their
// scores and of grad_out . v.
template <class T>
void recompute_seen(const KeyPass<T>& pass, int64_t y, int64_t x, int64_t rows, int64_t columns, int64_t pitch,
                    T* scores, T* slopes) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t lane = 0; lane < columns; lane += lanes<T>()) {
      const int64_t i = r * pitch + lane;
      Vec<T> p = exp(load(scores + i) - load(pass.lse.at(y + r, x + lane)));
      p = lanes_below<T>(columns - lane) ? p : Vec<T>{};
      store(scores + i, p);
      store(slopes + i, p * (load(slopes + i) - load(pass.delta.at(y + r, x + lane))));
    }
  }
}

template <class T>
void backward_of_keys(const Window& w, const Task& t, int64_t row, int64_t col, int64_t count, const KeyPass<T>& pass,
                      const Workspace<T>& work) {
  const int64_t y = t.rows.first_query(row), rows = t.rows.last_query(row) - y + 1, pitch = bias_pitch<T>(w);
  int64_t x[kTogether], columns[kTogether];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = (col + i) * work.position;
    x[i] = t.cols.first_query(col + i);
    columns[i] = t.cols.last_query(col + i) - x[i] + 1;
    dots(work.in + place, w.channels, pass.queries, y, x[i], rows, columns[i], work.scores[i], work.pitch);
    dots(work.more_in + place, w.channels, pass.grads, y, x[i], rows, columns[i], work.slopes[i], work.pitch);
  }
  for (int64_t i = 0; i < count; ++i) {
    const T* bias = bias_corner(pass.bias, w, y - row, x[i] - (col + i), pitch);
    add_bias(work.scores[i], work.pitch, rows, columns[i], bias, pitch);
    recompute_seen(pass, y, x[i], rows, columns[i], work.pitch, work.scores[i], work.slopes[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = (col + i) * work.position;
    weighted_sum(work.slopes[i], work.pitch, pass.query_rows, y, x[i], rows, columns[i], work.out + place);
    weighted_sum(work.scores[i], work.pitch, pass.grad_rows, y, x[i], rows, columns[i], work.more_out + place);
  }
}

template <class T>
void backward_key(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  const View<const T> lse{args.lse.data, args.lse.n, args.lse.y, args.lse.x, args.lse.head};
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first >= t.last) continue;
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    const int64_t top = t.rows.first_query(t.first), bottom = t.rows.last_query(t.last - 1) + 1;
    const KeyPass<T> pass = {pack_planar(scratch, args.q, w, t, w.channels, top, bottom),
                             pack_planar(scratch, args.grad_out, w, t, w.channels, top, bottom),
                             pack_planar(scratch, lse, w, t, 1, top, bottom),
                             pack_planar(scratch, args.delta, w, t, 1, top, bottom),
                             pack_interleaved(scratch, args.q, w, t, w.channels, top, bottom),
                             pack_interleaved(scratch, args.grad_out, w, t, w.channels, top, bottom),
                             pack_bias(scratch, w, args.rpb, t.head, true)};
    for (int64_t row = t.first; row < t.last; ++row) {
      gather_rows(args.k, w, t, w.channels, row, row + 1, T(w.scale), work.in);
      gather_rows(args.v, w, t, w.channels, row, row + 1, T(1), work.more_in);
      for_columns(t, [&](int64_t col, int64_t count) { backward_of_keys(w, t, row, col, count, pass, work); });
      scatter_row(work.out, args.grad_k, w, t, row, T(w.scale));
      scatter_row(work.more_out, args.grad_v, w, t, row, T(1));
    }
  }
}

// scores[i][j] = q_i . k_j over the window of i.
template <class T>
void qk(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first >= t.last) continue;
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    const int64_t top = t.rows.first_key(t.first), bottom = t.rows.first_key(t.last - 1) + w.kernel_y;
    const Planar<T> keys = pack_planar(scratch, args.k, w, t, w.channels, top, bottom);
    for (int64_t row = t.first; row < t.last; ++row) {
      for (int64_t col = 0; col < t.cols.members; ++col) {
        dots(at(args.q, w, t, row, col), w.channels, keys, t.rows.first_key(row), t.cols.first_key(col), w.kernel_y,
             w.kernel_x, work.scores[0], work.pitch);
        T* target = at(args.scores, w, t, row, col);
        for (int64_t r = 0; r < w.kernel_y; ++r) {
          copy_scaled(work.scores[0] + r * work.pitch, w.kernel_x, T(1), target + r * w.kernel_x);
        }
      }
    }
  }
}

// out_i = sum over the window of i of weights[i][j] v_j.
template <class T>
void av(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first >= t.last) continue;
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    const int64_t top = t.rows.first_key(t.first), bottom = t.rows.first_key(t.last - 1) + w.kernel_y;
    const Interleaved<T> values = pack_interleaved(scratch, args.v, w, t, w.channels, top, bottom);
    for (int64_t row = t.first; row < t.last; ++row) {
      for (int64_t col = 0; col < t.cols.members; ++col) {
        weighted_sum(at(args.weights, w, t, row, col), w.kernel_x, values, t.rows.first_key(row),
                     t.cols.first_key(col), w.kernel_y, w.kernel_x, work.out);
        copy_scaled(work.out, w.channels, T(1), at(args.out, w, t, row, col));
      }
    }
  }
}

// The transpose of `av`: out_j = sum over the queries i that see j of weights[i][j] v_i.
template <class T>
void avt(const AttentionArgs<T>& args, int64_t begin, int64_t end, T* memory) {
  const Window& w = args.window;
  for (int64_t index = begin; index < end; ++index) {
    const Task t = task_at(w, index);
    if (t.first >= t.last) continue;
    Scratch<T> scratch{memory};
    const Workspace<T> work(scratch, w);
    const int64_t top = t.rows.first_query(t.first), bottom = t.rows.last_query(t.last - 1) + 1;
    const Interleaved<T> values = pack_interleaved(scratch, args.v, w, t, w.channels, top, bottom);
    for (int64_t row = t.first; row < t.last; ++row) {
      const int64_t y = t.rows.first_query(row), rows = t.rows.last_query(row) - y + 1;
      for (int64_t col = 0; col < t.cols.members; ++col) {
        const int64_t x = t.cols.first_query(col), columns = t.cols.last_query(col) - x + 1;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t key_row = row - t.rows.first_key(y + r);
          for (int64_t c = 0; c < columns; ++c) {
            const int64_t key_col = col - t.cols.first_key(x + c);
            work.scores[0][r * work.pitch + c] = at(args.weights, w, t, y + r, x + c)[key_row * w.kernel_x + key_col];
          }
        }
        weighted_sum(work.scores[0], work.pitch, values, y, x, rows, columns, work.out);
        copy_scaled(work.out, w.channels, T(1), at(args.out, w, t, row, col));
      }
    }
  }
}

template <class T>
AttentionKernels<T> kernels() {
  return {scratch_size<T>, forward<T>, backward_query<T>, backward_key<T>, qk<T>, av<T>, avt<T>};
}

}  // namespace

AttentionTable attention_table() { return {kernels<float>(), kernels<double>()}; }

}  // namespace SL_ISA
}  // namespace styleloom
