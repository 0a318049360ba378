# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # librdkafka's lists of partitions.
      module Partitions
        ELEMENT = Rdkafka::Bindings::TopicPartition
        private_constant :ELEMENT

        # Yields a rd_kafka_topic_partition_list_t, which is valid in the block.
        #
        # @param offsets [Hash{Array(String, Integer) => Integer}] by topic and partition
        def self.list(offsets)
          list = Librdkafka.rd_kafka_topic_partition_list_new(offsets.size)
          offsets.each do |(topic, partition), offset|
            Librdkafka.rd_kafka_topic_partition_list_add(list, topic, partition)
            Librdkafka.rd_kafka_topic_partition_list_set_offset(list, topic, partition, offset)
          end
          yield list
        ensure
          Librdkafka.rd_kafka_topic_partition_list_destroy(list)
        end

        # @param list [FFI::Pointer] a rd_kafka_topic_partition_list_t
        # @return [Array<Array(String, Integer)>] topic and partition of each
        def self.read(list)
          elements(list).map { |element| [element[:topic].dup.freeze, element[:partition]] }
        end

        # @param list [FFI::Pointer] a rd_kafka_topic_partition_list_t
        # @return [Array<Rdkafka::Bindings::TopicPartition>] what it is made of, valid as long as the list
        def self.elements(list)
          native = Rdkafka::Bindings::TopicPartitionList.new(list)
          Array.new(native[:cnt]) { |index| ELEMENT.new(native[:elems] + (index * ELEMENT.size)) }
        end
      end
    end
  end
end
