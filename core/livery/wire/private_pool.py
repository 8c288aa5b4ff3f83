"""The descriptor pool of the Workload API's messages.

Owns: `POOL`, a pool apart from protobuf's default one. The Workload API has no proto package, so its names
(`X509SVIDRequest` ...) can be registered once per pool, and other SPIFFE libraries in the same process claim them in the
default pool. Does not own: the messages; the generated `workload` modules register themselves here.

Invariant: the well-known types that the Workload API imports are here before its own file is. They are other classes
than those of `google.protobuf`: fill a `Struct` field by `update`, a constructor or `MergeFromString`, not `CopyFrom`.
"""

from __future__ import annotations

from google.protobuf import descriptor_pool, struct_pb2

POOL = descriptor_pool.DescriptorPool()
POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
