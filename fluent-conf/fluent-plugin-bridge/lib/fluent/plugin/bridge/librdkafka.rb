# frozen_string_literal: true

require 'rdkafka'

module Fluent
  module Plugin
    module Bridge
      # The functions of librdkafka that the rdkafka gem does not have in Ruby: transactions, and
      # messages by the batch. The library itself is the gem's.
      #
      # Source of signatures and meanings: librdkafka's src/rdkafka.h.
      module Librdkafka
        extend FFI::Library

        ffi_lib Rdkafka::Bindings.ffi_libraries.first.name

        OK = 0
        ERR_MSG_SIZE_TOO_LARGE = 10
        ERR_UNKNOWN_TOPIC_OR_PART = 3
        ERR_INVALID_MSG = 2
        ERR_LEADER_NOT_AVAILABLE = 5
        ERR_INVALID_TOPIC_EXCEPTION = 17
        ERR_INVALID_TIMESTAMP = 32
        ERR_INVALID_PRODUCER_EPOCH = 47
        ERR_INVALID_TRANSACTION_TIMEOUT = 50
        ERR_SASL_AUTHENTICATION_FAILED = 58
        ERR_INVALID_RECORD = 87
        ERR_PRODUCER_FENCED = 90
        ERR_TOPIC_AUTHORIZATION_FAILED = 29
        ERR_GROUP_AUTHORIZATION_FAILED = 30
        ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
        ERR_GROUP_ID_NOT_FOUND = 69
        ERR_ILLEGAL_GENERATION = 22
        ERR_FENCED_INSTANCE_ID = 82
        ERR_UNRELEASED_INSTANCE_ID = 111
        ERR_UNKNOWN_MEMBER_ID = 25
        ERR__TIMED_OUT = -185
        ERR__MSG_TIMED_OUT = -192
        ERR__INVALID_DIFFERENT_RECORD = -138
        ERR__PARTITION_EOF = -191
        ERR__QUEUE_FULL = -184
        ERR__UNKNOWN_PARTITION = -190
        ERR__UNKNOWN_TOPIC = -188
        ERR__ALL_BROKERS_DOWN = -187
        ERR__TRANSPORT = -195
        ERR__RESOLVE = -193
        ERR__AUTHENTICATION = -169
        ERR__SSL = -181
        ERR__FATAL = -150
        ERR__FENCED = -144
        ERR__INVALID_ARG = -186
        ERR__STATE = -172
        ERR__ASSIGN_PARTITIONS = -175
        ERR__REVOKE_PARTITIONS = -174
        ERR__MAX_POLL_EXCEEDED = -147
        ERR__AUTO_OFFSET_RESET = -140
        ERR__PURGE_QUEUE = -152
        ERR__PURGE_INFLIGHT = -151

        PARTITION_UNASSIGNED = -1
        OFFSET_INVALID = -1001
        MSG_F_COPY = 0x2
        MSG_F_PARTITION = 0x8
        PURGE_QUEUE = 1
        PURGE_INFLIGHT = 2

        EVENT_DR = 0x1
        EVENT_LOG = 0x4
        EVENT_ERROR = 0x8
        EVENT_STATS = 0x40

        # What an argument of rd_kafka_produceva is; each is nine words, the first of them one of these.
        VTYPE_RKT = 2
        VTYPE_PARTITION = 3
        VTYPE_VALUE = 4
        VTYPE_KEY = 5
        VTYPE_OPAQUE = 6
        VTYPE_MSGFLAGS = 7
        VTYPE_TIMESTAMP = 8
        VTYPE_HEADER = 9

        # A rd_kafka_message_t is nine words: err, rkt, partition, payload, len, key, key_len, offset,
        # _private. err and partition are 32 bits wide.
        MESSAGE_WORDS = 9
        MESSAGE_BYTES = MESSAGE_WORDS * 8

        # Reads memory at any address without an FFI::Pointer object for each: get_bytes(address - 1, n).
        # A pointer to 0 would refuse.
        MEMORY = FFI::Pointer.new(1)

        # Those that may wait give Ruby's lock back meanwhile (blocking), the others are quick.
        attach_function :rd_kafka_new, %i[int pointer pointer size_t], :pointer, blocking: true
        attach_function :rd_kafka_destroy, %i[pointer], :void, blocking: true
        attach_function :rd_kafka_conf_new, [], :pointer
        attach_function :rd_kafka_conf_destroy, %i[pointer], :void
        attach_function :rd_kafka_conf_set, %i[pointer string string pointer size_t], :int
        attach_function :rd_kafka_conf_set_events, %i[pointer int], :void
        callback :rebalance, %i[pointer int pointer pointer], :void
        attach_function :rd_kafka_conf_set_rebalance_cb, %i[pointer rebalance], :void
        callback :error, %i[pointer int string pointer], :void
        attach_function :rd_kafka_conf_set_error_cb, %i[pointer error], :void
        attach_function :rd_kafka_set_log_queue, %i[pointer pointer], :int
        attach_function :rd_kafka_queue_new, %i[pointer], :pointer
        attach_function :rd_kafka_name, %i[pointer], :string
        attach_function :rd_kafka_err2name, %i[int], :string
        attach_function :rd_kafka_err2str, %i[int], :string

        attach_function :rd_kafka_error_code, %i[pointer], :int
        attach_function :rd_kafka_error_name, %i[pointer], :string
        attach_function :rd_kafka_error_string, %i[pointer], :string
        attach_function :rd_kafka_error_is_fatal, %i[pointer], :int
        attach_function :rd_kafka_error_is_retriable, %i[pointer], :int
        attach_function :rd_kafka_error_txn_requires_abort, %i[pointer], :int
        attach_function :rd_kafka_error_destroy, %i[pointer], :void
        attach_function :rd_kafka_fatal_error, %i[pointer pointer size_t], :int

        attach_function :rd_kafka_queue_get_main, %i[pointer], :pointer
        attach_function :rd_kafka_queue_get_consumer, %i[pointer], :pointer
        attach_function :rd_kafka_queue_destroy, %i[pointer], :void
        attach_function :rd_kafka_queue_poll, %i[pointer int], :pointer, blocking: true
        attach_function :rd_kafka_event_type, %i[pointer], :int
        attach_function :rd_kafka_event_error, %i[pointer], :int
        attach_function :rd_kafka_event_error_string, %i[pointer], :string
        attach_function :rd_kafka_event_error_is_fatal, %i[pointer], :int
        attach_function :rd_kafka_event_log, %i[pointer pointer pointer pointer], :int
        attach_function :rd_kafka_event_stats, %i[pointer], :string
        attach_function :rd_kafka_event_message_next, %i[pointer], :pointer
        attach_function :rd_kafka_event_message_count, %i[pointer], :size_t
        attach_function :rd_kafka_event_destroy, %i[pointer], :void

        attach_function :rd_kafka_topic_new, %i[pointer string pointer], :pointer
        attach_function :rd_kafka_topic_destroy, %i[pointer], :void
        attach_function :rd_kafka_topic_name, %i[pointer], :string
        attach_function :rd_kafka_metadata, %i[pointer int pointer pointer int], :int, blocking: true
        attach_function :rd_kafka_metadata_destroy, %i[pointer], :void
        attach_function :rd_kafka_msg_partitioner_murmur2, %i[pointer buffer_in size_t int32 pointer pointer], :int32
        attach_function :rd_kafka_topic_partition_list_new, %i[int], :pointer
        attach_function :rd_kafka_topic_partition_list_add, %i[pointer string int32], :pointer
        attach_function :rd_kafka_topic_partition_list_set_offset, %i[pointer string int32 int64], :int
        attach_function :rd_kafka_topic_partition_list_destroy, %i[pointer], :void

        attach_function :rd_kafka_poll_set_consumer, %i[pointer], :int
        attach_function :rd_kafka_subscribe, %i[pointer pointer], :int, blocking: true
        attach_function :rd_kafka_consume_batch_queue, %i[pointer int pointer size_t], :ssize_t, blocking: true
        attach_function :rd_kafka_message_destroy, %i[size_t], :void # an address
        attach_function :rd_kafka_message_timestamp, %i[size_t pointer], :int64
        attach_function :rd_kafka_message_headers, %i[size_t pointer], :int
        attach_function :rd_kafka_header_get_all, %i[pointer size_t pointer pointer pointer], :int
        attach_function :rd_kafka_assignment, %i[pointer pointer], :int
        attach_function :rd_kafka_assignment_lost, %i[pointer], :int
        attach_function :rd_kafka_assign, %i[pointer pointer], :int, blocking: true
        attach_function :rd_kafka_incremental_assign, %i[pointer pointer], :pointer, blocking: true
        attach_function :rd_kafka_incremental_unassign, %i[pointer pointer], :pointer, blocking: true
        attach_function :rd_kafka_rebalance_protocol, %i[pointer], :string
        attach_function :rd_kafka_pause_partitions, %i[pointer pointer], :int
        attach_function :rd_kafka_resume_partitions, %i[pointer pointer], :int
        attach_function :rd_kafka_seek_partitions, %i[pointer pointer int], :pointer, blocking: true
        attach_function :rd_kafka_commit, %i[pointer pointer int], :int, blocking: true
        attach_function :rd_kafka_committed, %i[pointer pointer int], :int, blocking: true
        attach_function :rd_kafka_offsets_for_times, %i[pointer pointer int], :int, blocking: true
        attach_function :rd_kafka_get_watermark_offsets, %i[pointer string int32 pointer pointer], :int
        attach_function :rd_kafka_consumer_close, %i[pointer], :int, blocking: true
        attach_function :rd_kafka_consumer_group_metadata, %i[pointer], :pointer
        attach_function :rd_kafka_consumer_group_metadata_destroy, %i[pointer], :void
        attach_function :rd_kafka_consumer_group_metadata_member_id, %i[pointer], :string
        attach_function :rd_kafka_consumer_group_metadata_generation_id, %i[pointer], :int32

        attach_function :rd_kafka_produce_batch, %i[pointer int32 int pointer int], :int
        attach_function :rd_kafka_produceva, %i[pointer pointer size_t], :pointer
        attach_function :rd_kafka_flush, %i[pointer int], :int, blocking: true
        attach_function :rd_kafka_purge, %i[pointer int], :int, blocking: true
        attach_function :rd_kafka_outq_len, %i[pointer], :int
        attach_function :rd_kafka_init_transactions, %i[pointer int], :pointer, blocking: true
        attach_function :rd_kafka_begin_transaction, %i[pointer], :pointer, blocking: true
        attach_function :rd_kafka_send_offsets_to_transaction, %i[pointer pointer pointer int], :pointer, blocking: true
        attach_function :rd_kafka_commit_transaction, %i[pointer int], :pointer, blocking: true
        attach_function :rd_kafka_abort_transaction, %i[pointer int], :pointer, blocking: true
      end
    end
  end
end
