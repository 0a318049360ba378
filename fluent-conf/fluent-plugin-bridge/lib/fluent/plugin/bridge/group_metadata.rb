# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # The consumer is not a member of its group at this moment.
      class NotAMember < StandardError; end

      # Who commits offsets: a group, a member of it, and the generation that the member belongs to. The
      # coordinator refuses them from a member that has been thrown out or that missed a rebalance; this fences
      # zombies (KIP-447).
      class GroupMetadata
        # @return [FFI::Pointer] the rd_kafka_consumer_group_metadata_t
        attr_reader :pointer

        # @param pointer [FFI::Pointer] from rd_kafka_consumer_group_metadata; owned from now on
        # @raise [NotAMember] the member has no generation. The coordinator checks neither if there is none, so
        #   that commit would pass whoever owns the partitions by now.
        def initialize(pointer)
          @pointer = pointer
          return if Librdkafka.rd_kafka_consumer_group_metadata_generation_id(pointer) >= 0 &&
                    !Librdkafka.rd_kafka_consumer_group_metadata_member_id(pointer).to_s.empty?

          free
          raise NotAMember, 'the consumer has been thrown out of its group, or is joining it anew'
        end

        # Gives the memory back.
        def free
          Librdkafka.rd_kafka_consumer_group_metadata_destroy(@pointer)
        end
      end
    end
  end
end
